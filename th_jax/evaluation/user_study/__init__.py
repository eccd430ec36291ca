"""The paper's user study: a page on which raters look for the generated image among three, and its results."""
