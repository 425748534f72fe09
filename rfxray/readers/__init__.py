"""The reader-study kit: can readers tell synthetic radiographs from real ones?

Statistics need NumPy and SciPy only. `answers` describes the files that a study exchanges.
"""
