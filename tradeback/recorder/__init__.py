"""The recorder: the process that stores what the server journals, repairs what is missing, and makes bars of it."""
