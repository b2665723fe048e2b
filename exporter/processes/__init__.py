"""Events in, what to count out: which processes live, what they are called, how they end. Pure."""
