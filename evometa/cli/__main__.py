"""`python -m evometa.cli`."""

from evometa.cli import main

if __name__ == "__main__":
    main()
