"""The empirical audit of a study: attack the code that trains, and see what it gives.

`carry_out` in `trial` runs it, `finding` says what was found. `canaries` attacks the
private training code from inside, `membership` the finished model from outside,
`bounds` and `curves` turn right guesses into a bound on epsilon. No file of a site is
opened, nothing is charged and nothing leaves this machine.
"""
