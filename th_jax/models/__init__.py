"""The four networks: embedder, generator, AdaIN projection, discriminator."""
