"""Every operation against independent oracles: tables of cases times properties."""
