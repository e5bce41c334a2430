"""``python -m biounet`` is the command ``biounet``: launchers such as ``torchrun`` start modules."""

from biounet.cli import main

if __name__ == "__main__":
    main()
