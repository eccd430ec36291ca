"""From pictures of people to avatars: who is asked for, when to stop with each, and what became of them."""
