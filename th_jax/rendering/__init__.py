"""From avatars and landmarks to pictures: rendering, animation, figures."""
