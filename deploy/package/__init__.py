"""What makes packages of the program. Needs Python, pip and a network; nothing of this is in a package."""
