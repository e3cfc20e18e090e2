"""A script for torchrun: the process of the given rank, if any, is killed in step 13."""

import sys

import torch.distributed as dist

from course_lib.experiments import train_or_die

if __name__ == "__main__":
    print("the end:", train_or_die(sys.argv[1], *map(int, sys.argv[2:])))
    dist.destroy_process_group()
