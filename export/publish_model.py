"""Put the result of a run into `models/`: half-precision weights and their manifest.

Run `edgeseg evaluate NAME DATA` afterwards; its figures belong into the model card.
"""

import argparse
from pathlib import Path

import torch

from edgeseg.manifest import ModelManifest, sha256_of, write_manifest
from edgeseg.modeling.checkpoints import load_model, save_weights

MODELS = Path(__file__).parents[1] / "models"


def main() -> None:
    """Write models/NAME/{student.safetensors, model.toml}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path, help="student.safetensors of a run")
    parser.add_argument("name", help="folder in models/")
    parser.add_argument("--trained-on", required=True, help="what the weights have seen")
    parser.add_argument("--description", required=True, help="one sentence")
    parser.add_argument("--licence", default="research and evaluation only")
    options = parser.parse_args()

    net = load_model(options.weights)
    folder = MODELS / options.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "student.safetensors"
    save_weights(net, path, torch.float16)
    manifest = ModelManifest(
        model=net.name,
        image_size=net.image_size,
        weights=path.name,
        sha256=sha256_of(path),
        num_parameters=net.num_parameters(),
        licence=options.licence,
        trained_on=options.trained_on,
        description=options.description,
    )
    print(f"{write_manifest(folder, manifest)}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
