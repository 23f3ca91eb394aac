"""Systems and seeds to tables: what is compared, stage by stage, and its sections of the page."""
