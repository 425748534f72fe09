import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # raw_trees.py, for every test here
