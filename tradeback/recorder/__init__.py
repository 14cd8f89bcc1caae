"""The recorder: journal in, stores out."""
