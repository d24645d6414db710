import Semel
import SemelTesting

/// A mistake that a store can be built with. Each breaks the law that exists because of it.
enum Flaw: Hashable, Sendable {
    enum Verb: CaseIterable { case complete, release, suspend, stream, renew, proceed }

    // Claiming
    case checksThenInserts, forgetsNonces, handsOutTokens, dropsTraceIDs, comparesPayloadsWhileClaimedOnly, inProgressBeforeMismatch
    case duplicatesRenew, evictsAtTheLimit, limitsAllScopesTogether, countsNoUncertain, pinsTheNewPolicy, keepsNoPolicyText
    case runsUnknownStates, completesUnknownStates
    // Fencing
    case ignoresEpoch(Verb), ignoresNonce(Verb), lastWriterWins, releasesStreams, readsThenWrites
    // Lapsing
    case neverLapses, keepsTheEpochOnTakeover, forgetsLapsedClaims, rerunsWithoutAsking, verifiesOnce, asksBeforeRaising, verifiesWhatIsHeld
    case refusesLateCompletions, roundsLeasesUpToSeconds, takesSecondsForMilliseconds, guessesLeases, forgetsRenewals, shortensLeases
    case reclaimsStreams
    // Finishing
    case refusesRepeatedCompletions, lastOutcomeWins, releaseLeavesATombstone, suspensionReleases, dropsReasons, emptiesOmittedBodies
    // Epochs
    case countsEpochsPerRecord, forgettingRestartsEpochs, trustsTheWallClock
    // Retaining
    case replaysForEver, countsRetentionFromTheClaim, forgetsKeysWithOutcomes, neverForgetsKeys, ignoresTheCompletionsRetention, purgesTheLiving
    case purgesTombstones, purgesNothing, purgeReadsThenDeletes
    // Batches
    case answersNoneWithOne, answersInKeyOrder, looksOnceBeforeTheBatch, stopsAtTheFirstRefusal, dropsBeyond512, locksInTheCallersOrder
    // Outcomes
    case takesEmptyForNothing, cutsLargeBodies, keepsFieldsInADictionary, dropsTrailers
    // Identities
    case ignoresScopes, joinsParts, foldsCase, cutsKeys, endsKeysAtZero, keepsTextOfKeys
    // Waiting
    case releasesInSilence, observesWhenAwaited, wakesOneWaiter, connectionsSignalThemselves, connectionsShareNothing
    // Operating
    case resolvingKeepsTheEpoch, resolvingDropsTheOutcome, notAppliedChangesNothing, resolvesWhatIsHeld, forgetsTheLiving, auditsNothing
    case auditsRefusals, chainsNothing, ignoresExpectedEpochs, comparesEpochsFirst
    // Listing
    case listsEveryScene, listsEveryAge, listsWhatIsStored, pagesByTimeAlone, lapsesAnewAtEachRead, findsWhatIsStored
    // Reopening
    case losesLiveRecords, restartsEpochsOnReopening, restartsTheAuditOnReopening, leasesOutliveTheProcess
    // Only a long story shows it.
    case forgetsToVerifyTheThirdTime

    static let all: [Flaw] =
        [
            .checksThenInserts, .forgetsNonces, .handsOutTokens, .dropsTraceIDs, .comparesPayloadsWhileClaimedOnly, .inProgressBeforeMismatch,
            .duplicatesRenew, .evictsAtTheLimit, .limitsAllScopesTogether, .countsNoUncertain, .pinsTheNewPolicy, .keepsNoPolicyText,
            .runsUnknownStates, .completesUnknownStates,
            .lastWriterWins, .releasesStreams, .readsThenWrites,
            .neverLapses, .keepsTheEpochOnTakeover, .forgetsLapsedClaims, .rerunsWithoutAsking, .verifiesOnce, .asksBeforeRaising,
            .verifiesWhatIsHeld, .refusesLateCompletions, .roundsLeasesUpToSeconds, .takesSecondsForMilliseconds, .guessesLeases,
            .forgetsRenewals, .shortensLeases, .reclaimsStreams,
            .refusesRepeatedCompletions, .lastOutcomeWins, .releaseLeavesATombstone, .suspensionReleases, .dropsReasons, .emptiesOmittedBodies,
            .countsEpochsPerRecord, .forgettingRestartsEpochs, .trustsTheWallClock,
            .replaysForEver, .countsRetentionFromTheClaim, .forgetsKeysWithOutcomes, .neverForgetsKeys, .ignoresTheCompletionsRetention,
            .purgesTheLiving, .purgesTombstones, .purgesNothing, .purgeReadsThenDeletes,
            .answersNoneWithOne, .answersInKeyOrder, .looksOnceBeforeTheBatch, .stopsAtTheFirstRefusal, .dropsBeyond512, .locksInTheCallersOrder,
            .takesEmptyForNothing, .cutsLargeBodies, .keepsFieldsInADictionary, .dropsTrailers,
            .ignoresScopes, .joinsParts, .foldsCase, .cutsKeys, .endsKeysAtZero, .keepsTextOfKeys,
            .releasesInSilence, .observesWhenAwaited, .wakesOneWaiter, .connectionsSignalThemselves, .connectionsShareNothing,
            .resolvingKeepsTheEpoch, .resolvingDropsTheOutcome, .notAppliedChangesNothing, .resolvesWhatIsHeld, .forgetsTheLiving,
            .auditsNothing, .auditsRefusals, .chainsNothing, .ignoresExpectedEpochs, .comparesEpochsFirst,
            .listsEveryScene, .listsEveryAge, .listsWhatIsStored, .pagesByTimeAlone, .lapsesAnewAtEachRead, .findsWhatIsStored,
            .losesLiveRecords, .restartsEpochsOnReopening, .restartsTheAuditOnReopening, .leasesOutliveTheProcess,
            .forgetsToVerifyTheThirdTime,
        ] + Verb.allCases.flatMap { [.ignoresEpoch($0), .ignoresNonce($0)] }

    /// Whether somebody waits for ever for what never comes.
    var hangs: Bool {
        [.releasesInSilence, .observesWhenAwaited, .wakesOneWaiter, .connectionsSignalThemselves, .locksInTheCallersOrder].contains(self)
    }

    /// The law that must fail on a store with this flaw.
    var law: StoreLaw {
        switch self {
        case .checksThenInserts: .atomicClaim
        case .forgetsNonces: .ownClaimIsRecognised
        case .handsOutTokens: .foreignClaimIsRefused
        case .dropsTraceIDs: .firstClaimIsRecorded
        case .comparesPayloadsWhileClaimedOnly, .inProgressBeforeMismatch: .mismatchComesFirst
        case .duplicatesRenew: .duplicateRenewsNothing
        case .evictsAtTheLimit, .limitsAllScopesTogether, .countsNoUncertain: .liveKeysAreLimited
        case .pinsTheNewPolicy, .keepsNoPolicyText: .policyIsPinned
        case .runsUnknownStates, .completesUnknownStates: .unknownStatesFailClosed
        case .ignoresEpoch(let verb), .ignoresNonce(let verb): verb.law
        case .lastWriterWins: .zombieChangesNothing
        case .releasesStreams: .statesAreGuarded
        case .readsThenWrites: .finishRacesTakeover
        case .neverLapses, .keepsTheEpochOnTakeover: .lapsedClaimIsReclaimed
        case .forgetsLapsedClaims: .lapsedClaimBecomesUncertain
        case .rerunsWithoutAsking: .lapsedClaimIsVerified
        case .verifiesOnce: .lapsedVerificationIsVerifiedAgain
        case .asksBeforeRaising: .verificationRaisesTheEpochFirst
        case .verifiesWhatIsHeld: .verificationTakesNothingFromAHolder
        case .refusesLateCompletions: .lateCompletionIsAccepted
        case .roundsLeasesUpToSeconds, .takesSecondsForMilliseconds, .guessesLeases: .leasesAreExact
        case .forgetsRenewals, .shortensLeases: .renewalKeepsAClaim
        case .reclaimsStreams: .interruptedStreamIsUncertain
        case .refusesRepeatedCompletions, .lastOutcomeWins: .completionIsRepeatable
        case .releaseLeavesATombstone: .releaseFreesTheKey
        case .suspensionReleases, .dropsReasons: .suspensionHoldsTheKey
        case .emptiesOmittedBodies: .streamCompletesWithoutBody
        case .countsEpochsPerRecord: .epochsRise
        case .forgettingRestartsEpochs: .epochsSurviveForgetting
        case .trustsTheWallClock: .epochsSurviveABackwardClock
        case .replaysForEver, .countsRetentionFromTheClaim: .outcomeIsKept
        case .forgetsKeysWithOutcomes, .neverForgetsKeys: .keyIsKept
        case .ignoresTheCompletionsRetention: .completionChoosesItsRetention
        case .purgesTheLiving: .purgeSparesTheLiving
        case .purgesTombstones: .purgeChangesNoAnswer
        case .purgesNothing: .purgeComesToAnEnd
        case .purgeReadsThenDeletes: .purgeRacesDuplicates
        case .answersNoneWithOne: .batchesOfNoneAndOne
        case .answersInKeyOrder: .batchAnswersInOrder
        case .looksOnceBeforeTheBatch: .batchHoldsDuplicates
        case .stopsAtTheFirstRefusal: .batchItemsStandAlone
        case .dropsBeyond512: .batchesMayBeLarge
        case .locksInTheCallersOrder: .concurrentBatchesNeverLock
        case .takesEmptyForNothing: .falsyOutcomesAreResults
        case .cutsLargeBodies: .outcomesMayBeLarge
        case .keepsFieldsInADictionary, .dropsTrailers: .outcomesAreKeptToTheLetter
        case .ignoresScopes: .scopesAreSeparate
        case .joinsParts: .partsAreSeparate
        case .foldsCase, .cutsKeys, .endsKeysAtZero, .keepsTextOfKeys: .keysAreBytes
        case .releasesInSilence, .observesWhenAwaited: .everyChangeIsSignalled
        case .wakesOneWaiter: .waitersLoseNoWakeUp
        case .connectionsSignalThemselves: .signalsCrossConnections
        case .connectionsShareNothing: .claimsCrossConnections
        case .resolvingKeepsTheEpoch, .resolvingDropsTheOutcome: .resolvedAsApplied
        case .notAppliedChangesNothing: .resolvedAsNotApplied
        case .resolvesWhatIsHeld: .resolutionOverridesNobody
        case .forgetsTheLiving: .onlyFinishedKeysAreForgotten
        case .ignoresExpectedEpochs: .staleDecisionsChangeNothing
        case .comparesEpochsFirst: .decisionsRaceTakeovers
        case .auditsNothing, .auditsRefusals: .actsAreAudited
        case .chainsNothing: .auditIsChained
        case .listsEveryScene, .listsEveryAge: .listingSelects
        case .listsWhatIsStored: .listingShowsTheTruth
        case .pagesByTimeAlone, .lapsesAnewAtEachRead: .pagesAreComplete
        case .findsWhatIsStored: .referencesFind
        case .losesLiveRecords: .reopeningKeepsEverything
        case .restartsEpochsOnReopening: .epochsSurviveReopening
        case .restartsTheAuditOnReopening: .auditSurvivesReopening
        case .leasesOutliveTheProcess: .reopeningEndsLeases
        case .forgetsToVerifyTheThirdTime: .rulesHoldByChance
        }
    }
}

extension Flaw.Verb {
    init(_ change: Transition.Change) {
        switch change {
        case .complete: self = .complete
        case .release: self = .release
        case .suspend: self = .suspend
        case .stream: self = .stream
        case .renew: self = .renew
        case .proceed: self = .proceed
        }
    }

    var law: StoreLaw {
        switch self {
        case .complete: .completeIsFenced
        case .release: .releaseIsFenced
        case .suspend: .suspendIsFenced
        case .stream: .streamIsFenced
        case .renew: .renewIsFenced
        case .proceed: .proceedIsFenced
        }
    }
}
