"""What the output and rejection topics say now, for people: read without a group, verified, kept bounded."""
