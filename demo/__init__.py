"""What scripts/demo shows: programs, pools and memory of anyfork beside multiprocessing's, measured in one run."""
