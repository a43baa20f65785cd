"""Images and masks in, training batches out.

In reading order: `sources` (which data to read) lists `records` (where one image and its masks
lie), `prompt_sampling` draws prompts, `augmentation` varies what is seen, `samples` makes one
record into a training sample, `training` and `loading` make a stream of batches that depends on
nothing but the seed and the position. `broken` counts what could not be read.

Names are imported from the module that holds them: reading a configuration needs no torch.
"""
