package Contender;
# What contenders in Perl share: the lines on the socket, as bench/owner.py speaks them, and the clock.
use strict;
use warnings;
use Exporter "import";
use Fcntl qw(F_SETFD FD_CLOEXEC);
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

our @EXPORT = qw(IN_FLIGHT now control sequential answer);

use constant IN_FLIGHT => 64;

sub now { clock_gettime (CLOCK_MONOTONIC) }

# The socket of this descriptor; where a module is missing, that is said, and the program ends.
sub control {
   my ($fd, @modules) = @_;
   open my $control, "+<&=", $fd or die "descriptor $fd: $!";
   fcntl $control, F_SETFD, FD_CLOEXEC or die "descriptor $fd: $!";
   select((select($control), $| = 1)[0]);
   return $control if eval { eval "require $_; 1" || die $@ for @modules; 1 };
   my ($why) = split /\n/, $@;
   $why =~ s/ \(you may need.*//;
   print $control "unavailable $why\n";
   exit;
}

# How often something could be done one after the other, and the seconds that this took.
sub sequential {
   my ($one, $seconds) = @_;
   my ($count, $begin) = (0, now);
   while (!$count || now () < $begin + $seconds) {
      $one->();
      ++$count;
   }
   ($count, now () - $begin)
}

# Say that all is ready, and measure what is asked for until the driver closes the socket.
sub answer {
   my ($control, %measures) = @_;
   print $control "ok\n";
   while (defined (my $line = <$control>)) {
      my ($measure, $amount) = split " ", $line;
      print $control join (" ", "ok", map { sprintf "%.7g", $_ } $measures{$measure}->($amount)), "\n";
   }
}

1
