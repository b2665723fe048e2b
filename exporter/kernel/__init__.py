"""What the kernel says, and how it is asked: bytes and text on one side, values on the other."""
