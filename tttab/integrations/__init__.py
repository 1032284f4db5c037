"""tttab in other packages' frameworks, one module each; each needs an extra, and tttab itself uses none."""
