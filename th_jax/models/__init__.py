"""The four networks: embedder, generator, AdaIN projection and discriminator."""
