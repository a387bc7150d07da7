"""`python -m decigrad` is the command `decigrad`."""

from decigrad.cli import app

if __name__ == "__main__":
    app()
