"""What is deployed agrees with the program: units, images, compose file, chart, tutorial."""
