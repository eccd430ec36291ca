"""The paper's evaluation as a command: people, frames, shots, baselines, intervals, and a report page."""
