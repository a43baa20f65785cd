"""A photograph of 12 megapixels has to fit beside a model on a small machine."""

import subprocess
import sys

import pytest
from exported_folders import write_folder

LIMIT_MB = 600

PROBE = """
import re, sys
from pathlib import Path
import numpy as np
import edgeseg
from edgeseg.prompts import Prompt

def peak_mb():  # getrusage would count the process that started this one, too
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

segmenter = edgeseg.load(sys.argv[1], threads=1)
num_prompts, multimask = int(sys.argv[2]), sys.argv[3] == "multimask"
before = peak_mb()
image = np.full((3000, 4000, 3), 90, np.uint8)
encoded = segmenter.encode(image)
prompts = [Prompt(points_xy=[(3990, 2990 - n)]) for n in range(num_prompts)]
masks = segmenter.segment(encoded, prompts, multimask=multimask)
after = peak_mb()
assert masks.masks.mean() > 0.9, masks.masks.mean()  # the whole photograph is the worst case
print(len(masks), after - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
@pytest.mark.parametrize(
    ("num_prompts", "multimask", "num_masks"),
    [(1, "single", 1), (1, "multimask", 3), (16, "single", 16)],
)
def test_encoding_and_segmenting_a_large_photograph_stays_below_the_limit(
    tmp_path, num_prompts, multimask, num_masks
):
    folder = write_folder(tmp_path, image_size=1024)
    arguments = [str(folder), str(num_prompts), multimask]

    run = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=False
    )

    assert run.returncode == 0, run.stderr
    found, used_mb = run.stdout.split()
    assert int(found) == num_masks
    assert float(used_mb) > 12 * num_masks  # the masks themselves, or nothing was measured
    assert float(used_mb) < LIMIT_MB, f"{used_mb} MB"
