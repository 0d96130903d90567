"""The host agent as a program: its file, what it is assembled from, how it is reloaded and watched."""
