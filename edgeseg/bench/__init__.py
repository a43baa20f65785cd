"""Measuring: a stopwatch that is fair, and what it ran on."""
