"""Judge networks, which score generated frames and are not part of any loss."""
