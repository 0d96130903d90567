"""The rooms of `enclavescale doctor`: each asks one part of a host's surroundings what an agent will need of it."""
