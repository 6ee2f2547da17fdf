"""Jobs on a real Slurm of one host; not part of the tests that always run."""
