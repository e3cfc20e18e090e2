"""A script for torchrun: the process of the given rank, if any, is killed in step 13."""

import sys

import torch.distributed as dist

from course_lib.experiments import train_or_die

if __name__ == "__main__":
    end = train_or_die(sys.argv[1], *map(int, sys.argv[2:]))
    sys.stdout.write(f"the end: {end}\n")  # at once: print's parts may mix with another process's
    dist.destroy_process_group()
