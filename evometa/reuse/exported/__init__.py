"""What `evometa export` puts beside the weights, as it is: modules that need PyTorch alone."""
