"""The check-up behind `edgeseg doctor`: packages, devices, this machine, data and models."""
