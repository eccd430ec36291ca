"""The paper's user study: a page on which people look for the one generated picture among three, and what they found."""
