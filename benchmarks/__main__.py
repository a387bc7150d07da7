"""`python -m benchmarks`: time decigrad beside its peers, row by row."""

from benchmarks.layers import main

main()
