"""The names of the containers of this host, from the API of Docker or Podman."""
