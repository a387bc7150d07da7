"""Bridges to other libraries. Each file needs its own: import it by name, or from `decigrad`."""
