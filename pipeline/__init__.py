"""Buy AI video in bulk without waste: manifest -> requests -> submit -> poll -> download -> report."""
