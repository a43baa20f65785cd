"""Image encoders: (B, 3, S, S) images to features at stride 16."""
