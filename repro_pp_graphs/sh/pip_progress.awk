# pip's output in, a running count out: `12 of 123  numpy==2.3.5`. -v of=COUNT -v tty=0|1
/^(Collecting|Processing|Ignoring) |^Requirement already satisfied: / {
  n++
  name = /^Requirement/ ? $4 : $2
  sub(/.*\//, "", name)
  if (tty) printf "\r\033[K  %d of %d  %s", n, of, name
  else if (n % 25 == 0) print "  " n " of " of " packages looked up"
  fflush()
}
/^Installing collected packages/ {
  if (tty) printf "\r\033[K"
  print "  downloaded, installing"
  fflush()
}
