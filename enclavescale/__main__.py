"""`python -m enclavescale` is the command line."""

from enclavescale.cli import main

if __name__ == "__main__":
    main()
