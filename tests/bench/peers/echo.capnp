# The interface that the Cap'n Proto peer calls.
@0xd2f1a6c4b7e83915;

interface Echo {
  call @0 (data :Data) -> (data :Data);
}
