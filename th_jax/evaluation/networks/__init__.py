"""Networks that judge pictures: those that users name by path, the bundled VGG16's features, and LPIPS."""
