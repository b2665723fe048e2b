"""The numbers, the labels that they have, and the limits of their series. Pure, but for the rules file."""
