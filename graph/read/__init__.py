"""What people bring, made plain before it becomes canonical: number formats, codes, old resizing, their own words."""
