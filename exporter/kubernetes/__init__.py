"""The names of the pods of this node, from the Kubernetes API."""
