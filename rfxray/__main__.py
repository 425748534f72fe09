"""`python -m rfxray` lists the commands; `python -m rfxray NAME …` runs one."""

from rfxray.commands.table import main

if __name__ == "__main__":
    main()
