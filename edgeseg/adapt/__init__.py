"""Per-domain adaptation of a frozen network.

A pack is what one domain adds to a shared model: a small network beside the encoder, or low-rank
updates that merge into its neck, zero at first, so that an untrained pack is the model itself. The
modules are in `convolutional_adapter` and `neck_delta`; `in_encoder_adapter` holds the baseline
they are measured against, which trains through the whole encoder.
"""
