"""`python -m rdn_engine`: the command line, where `rdn-engine` is not on the path."""

from rdn_engine.cli.app import main

if __name__ == "__main__":
    main()
