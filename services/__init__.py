"""TokenMesh: the services of the mesh and the command line that starts them."""
